//! Makes everything in a component that can last notice that its page is gone.
//!
//! Each core module that needs it gets one memory more (its last), and checks of the form
//! `i32.const 0; i32.load8_u offset=N; drop` on it:
//!
//! * at the beginning of each `loop`;
//! * at the beginning of each function that calls others: the stack limit bounds how deep calls
//!   nest, not how many there are, and sixty functions that each call the next twice make 2^60;
//! * before each call that may reach the host, and each bulk operation on memories and tables: one
//!   may take long, and a function has room for a million in a row.
//!
//! Everything else ends by itself. N is different for neighbouring checks of the first two kinds:
//! Cranelift removes a load whose value is already known from a dominating load of the same
//! address, which would free an inner loop from its check. The third kind shares one address, since
//! what follows each check may change memory. Function indices and names stay; other custom
//! sections go, since their offsets would be wrong.

use std::convert::Infallible;

use wasm_encoder::{
    CodeSection, Component, CustomSection, Function, Instruction, MemArg, MemorySection,
    MemoryType, Module, SectionId,
    reencode::{Error, Reencode, ReencodeComponent, component_utils, utils},
};
use wasmparser::{FunctionBody, MemorySectionReader, Operator, Parser, Payload, TypeRef};

use super::page::{EXTRA_MAXIMUM_PAGES, EXTRA_MINIMUM_PAGES, PAGE_BYTES};

/// The address of the checks before calls and bulk operations: the page's last.
const SHARED_OFFSET: u64 = PAGE_BYTES as u64 - 1;

type Rewritten<T> = Result<T, Error<Infallible>>;

/// The component with a check in each loop. It must have been validated.
///
/// # Errors
///
/// A text for the module's author.
pub(crate) fn rewrite(component: &[u8]) -> Result<Vec<u8>, String> {
    let mut rewriter = Rewriter::default();
    let mut output = Component::new();
    rewriter
        .parse_component(&mut output, Parser::new(0), component)
        .map_err(|error| format!("the component cannot be prepared: {error}"))?;
    Ok(output.finish())
}

#[derive(Default)]
struct Rewriter {
    /// The index of the extra memory in the module at hand, if it needs one.
    extra_memory: Option<u32>,
    /// Whether the module's memory section has been written.
    has_memory_section: bool,
    /// Functions with smaller indices are imported.
    imported_functions: u32,
    /// Counts loops and functions with checks, for the offsets of their loads.
    checks: u64,
}

/// What has to be known of a module before it is rewritten.
#[derive(Default)]
struct Shape {
    memories: u32,
    imported_functions: u32,
    /// Whether it may run for long.
    lasts: bool,
}

impl Shape {
    fn of(module: &[u8]) -> Rewritten<Self> {
        let mut shape = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let ty = import?.ty;
                        shape.memories += u32::from(matches!(ty, TypeRef::Memory(_)));
                        let function = matches!(ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
                        shape.imported_functions += u32::from(function);
                    }
                }
                Payload::MemorySection(section) => shape.memories += section.count(),
                Payload::CodeSectionEntry(body) if !shape.lasts => {
                    shape.lasts = contains(&body, |o| is_loop(o) || is_call(o) || is_bulk(o))?;
                }
                _ => {}
            }
        }
        Ok(shape)
    }
}

fn contains(body: &FunctionBody<'_>, wanted: impl Fn(&Operator<'_>) -> bool) -> Rewritten<bool> {
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        if wanted(&operators.read()?) {
            return Ok(true);
        }
    }
    Ok(false)
}

const fn is_loop(operator: &Operator<'_>) -> bool {
    matches!(operator, Operator::Loop { .. })
}

const fn is_call(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::Call { .. } | Operator::CallIndirect { .. } | Operator::CallRef { .. }
    )
}

const fn is_bulk(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::MemoryFill { .. }
            | Operator::MemoryCopy { .. }
            | Operator::MemoryInit { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
    )
}

const fn extra_memory_type() -> MemoryType {
    MemoryType {
        minimum: EXTRA_MINIMUM_PAGES,
        maximum: Some(EXTRA_MAXIMUM_PAGES),
        memory64: false,
        shared: false,
        page_size_log2: None,
    }
}

/// The place of a section in a module.
fn place(section: SectionId) -> u32 {
    match section {
        SectionId::Tag => 55,
        SectionId::DataCount => 95,
        other => 10 * u32::from(u8::from(other)),
    }
}

impl Rewriter {
    /// The address of the next check of a loop or a function.
    fn next_offset(&mut self) -> u64 {
        self.checks += 1;
        (self.checks - 1) % SHARED_OFFSET
    }

    /// Whether what the operator does may take long by itself.
    fn may_last(&self, operator: &Operator<'_>) -> bool {
        match operator {
            Operator::Call { function_index } => *function_index < self.imported_functions,
            operator => is_call(operator) || is_bulk(operator),
        }
    }
}

/// Adds a load that traps when the guest is to stop.
fn check(function: &mut Function, memory_index: u32, offset: u64) {
    function
        .instruction(&Instruction::I32Const(0))
        .instruction(&Instruction::I32Load8U(MemArg {
            offset,
            align: 0,
            memory_index,
        }))
        .instruction(&Instruction::Drop);
}

impl Reencode for Rewriter {
    type Error = Infallible;

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: MemorySectionReader<'_>,
    ) -> Rewritten<()> {
        utils::parse_memory_section(self, memories, section)?;
        if self.extra_memory.is_some() {
            memories.memory(extra_memory_type());
            self.has_memory_section = true;
        }
        Ok(())
    }

    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        _after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Rewritten<()> {
        let passed = before.is_none_or(|before| place(before) > place(SectionId::Memory));
        if passed && self.extra_memory.is_some() && !self.has_memory_section {
            let mut memories = MemorySection::new();
            memories.memory(extra_memory_type());
            module.section(&memories);
            self.has_memory_section = true;
        }
        Ok(())
    }

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        func: FunctionBody<'_>,
    ) -> Rewritten<()> {
        let Some(memory_index) = self.extra_memory else {
            return utils::parse_function_body(self, code, func);
        };
        let mut function = self.new_function_with_parsed_locals(&func)?;
        if contains(&func, is_call)? {
            check(&mut function, memory_index, self.next_offset());
        }
        let mut operators = func.get_operators_reader()?;
        while !operators.eof() {
            if self.may_last(&operators.clone().read()?) {
                check(&mut function, memory_index, SHARED_OFFSET);
            }
            let instruction = self.parse_instruction(&mut operators)?;
            let is_loop = matches!(instruction, Instruction::Loop(_));
            function.instruction(&instruction);
            if is_loop {
                check(&mut function, memory_index, self.next_offset());
            }
        }
        code.function(&function);
        Ok(())
    }

    fn parse_custom_section(
        &mut self,
        module: &mut Module,
        section: wasmparser::CustomSectionReader<'_>,
    ) -> Rewritten<()> {
        // Names are for backtraces; a damaged name section is nobody's loss.
        if section.name() == "name" {
            module.section(&CustomSection {
                name: "name".into(),
                data: section.data().into(),
            });
        }
        Ok(())
    }
}

impl ReencodeComponent for Rewriter {
    fn parse_component_submodule(
        &mut self,
        component: &mut Component,
        parser: Parser,
        module: &[u8],
    ) -> Rewritten<()> {
        let shape = Shape::of(module)?;
        self.extra_memory = shape.lasts.then_some(shape.memories);
        self.imported_functions = shape.imported_functions;
        self.has_memory_section = false;
        component_utils::parse_component_submodule(self, component, parser, module)
    }

    fn parse_component_custom_section(
        &mut self,
        _component: &mut Component,
        _section: wasmparser::CustomSectionReader<'_>,
    ) -> Rewritten<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn rewritten(module: &str) -> Vec<u8> {
        let component = wat::parse_str(format!("(component (core {})", &module[1..])).unwrap();
        let output = rewrite(&component).unwrap();
        wasmparser::Validator::new_with_features(
            wasmparser::WasmFeatures::default() | wasmparser::WasmFeatures::MULTI_MEMORY,
        )
        .validate_all(&output)
        .unwrap();
        output
    }

    /// The (memory, offset) of each load in the output.
    fn loads(output: &[u8]) -> Vec<(u32, u64)> {
        let mut loads = Vec::new();
        for payload in Parser::new(0).parse_all(output) {
            if let Payload::CodeSectionEntry(body) = payload.unwrap() {
                let mut operators = body.get_operators_reader().unwrap();
                while !operators.eof() {
                    if let Operator::I32Load8U { memarg } = operators.read().unwrap() {
                        loads.push((memarg.memory, memarg.offset));
                    }
                }
            }
        }
        loads
    }

    #[test]
    fn each_loop_loads_from_an_address_of_its_own() {
        let output = rewritten(
            "(module (import \"a\" \"m\" (memory 1)) (memory 3)
              (func (loop $a (loop $b (br $b)) (br $a)) (loop $c))
              (func (loop $d (param i32) (result i32)) drop))"
                .replace("(func (loop $d", "(func i32.const 1 (loop $d")
                .as_str(),
        );
        let loads = loads(&output);
        assert_eq!(loads.len(), 4);
        assert!(loads.iter().all(|(memory, _)| *memory == 2), "{loads:?}");
        assert_eq!(loads.iter().collect::<HashSet<_>>().len(), 4);
    }

    #[test]
    fn a_module_without_memories_gets_a_section_at_its_place() {
        let output = rewritten(
            "(module (table 1 funcref) (global i32 (i32.const 0)) (elem (i32.const 0) $f)
              (func $f (export \"f\") (loop $a (br $a))))",
        );
        assert_eq!(loads(&output), [(0, 0)]);
    }

    #[test]
    fn functions_that_call_others_are_checked_and_no_more() {
        let output = rewritten(
            "(module (import \"a\" \"f\" (func $host)) (type $t (func)) (table 1 funcref)
              (func $leaf) (func (call $leaf) (call $leaf))
              (func (call_indirect (type $t) (i32.const 0)) (loop $a (br $a)))
              (func (call $host)))",
        );
        let offsets: Vec<_> = loads(&output).iter().map(|(_, offset)| *offset).collect();
        assert_eq!(offsets, [0, 1, SHARED_OFFSET, 2, 3, SHARED_OFFSET]);
    }

    #[test]
    fn bulk_operations_are_checked_each() {
        let output = rewritten(
            "(module (memory 1) (func
              (memory.fill (i32.const 0) (i32.const 0) (i32.const 9))
              (memory.copy (i32.const 0) (i32.const 0) (i32.const 9))))",
        );
        assert_eq!(loads(&output), [(1, SHARED_OFFSET); 2]);
    }

    #[test]
    fn a_module_without_loops_and_calls_keeps_its_memories() {
        let output = rewritten("(module (memory 1) (func (block (br 0))))");
        let memories = Parser::new(0)
            .parse_all(&output)
            .filter_map(|payload| match payload {
                Ok(Payload::MemorySection(section)) => Some(section.count()),
                _ => None,
            });
        assert_eq!(memories.sum::<u32>(), 1);
    }
}
