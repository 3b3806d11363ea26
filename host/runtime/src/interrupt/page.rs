//! Interruption by taking a page away (Linux).
//!
//! `rewrite` gives core modules an extra memory of a reserved type and makes what can last (each
//! loop, …) begin with a load from it. This module creates all linear memories, so it recognises the
//! extra ones and hands them to the instance's watch, which protects them to stop the guest: the
//! next load is an ordinary out-of-bounds trap.
//!
//! # Safety
//!
//! * The host never reads or writes an extra memory: it has no data segments (the module was
//!   validated before it had that memory, so nothing else in it can name it), and Wasmtime lifts
//!   and lowers only through memories that canonical options name.
//! * Each memory, extra or not, has the full reservation and guard that compiled code relies on.
//! * A reservation is unmapped when the memory and every watch that knows it are gone.

#![expect(unsafe_code, reason = "memory protection is what this module is about")]

use std::{cell::RefCell, ffi::c_void, ptr, sync::Arc};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use wasmtime::{Config, LinearMemory, MemoryCreator, MemoryType};

use super::{Trapdoor, Watch};

/// The size of a Wasm page.
pub(crate) const PAGE_BYTES: usize = 64 << 10;
/// The extra memory's type: one page, and a maximum that no program has by accident. A module that
/// arrives with a memory of this type is refused.
pub(crate) const EXTRA_MINIMUM_PAGES: u64 = 1;
/// See [`EXTRA_MINIMUM_PAGES`].
pub(crate) const EXTRA_MAXIMUM_PAGES: u64 = 47_119;

thread_local! {
    static INSTANTIATING: RefCell<Option<Arc<Watch>>> = const { RefCell::new(None) };
}

/// Runs `f`, which may create memories, for the instance of this watch.
pub(crate) fn with_watch<R>(watch: &Arc<Watch>, f: impl FnOnce() -> R) -> R {
    struct Reset(Option<Arc<Watch>>);
    impl Drop for Reset {
        fn drop(&mut self) {
            let previous = self.0.take();
            INSTANTIATING.with(|current| *current.borrow_mut() = previous);
        }
    }
    let previous = INSTANTIATING.with(|current| current.borrow_mut().replace(Arc::clone(watch)));
    let _reset = Reset(previous);
    f()
}

pub(crate) fn configure(config: &mut Config) {
    config.with_host_memory(Arc::new(Creator));
    // Copy-on-write images need Wasmtime's own memories.
    config.memory_init_cow(false);
}

/// Whether this is the growth of an extra memory from nothing, which is not the guest's doing.
pub(crate) fn is_extra_memory(current: usize, desired: usize, maximum: Option<usize>) -> bool {
    current == 0
        && desired == PAGE_BYTES
        && maximum.is_some_and(|m| m as u64 == EXTRA_MAXIMUM_PAGES * PAGE_BYTES as u64)
}

/// A stretch of address space.
struct Reservation {
    base: *mut c_void,
    len: usize,
}

// SAFETY: the fields never change, and all access to the stretch goes through system calls here
// or through the Wasm memory that owns it.
unsafe impl Send for Reservation {}
// SAFETY: as above.
unsafe impl Sync for Reservation {}

impl Reservation {
    fn new(len: usize) -> rustix::io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags)? };
        Ok(Self { base, len })
    }

    /// Changes the access to `from..to`, both multiples of the page size.
    fn protect(&self, from: usize, to: usize, access: MprotectFlags) -> rustix::io::Result<()> {
        assert!(from <= to && to <= self.len, "only within the reservation");
        if from == to {
            return Ok(());
        }
        // SAFETY: the range lies within this mapping, which lives as long as `self`.
        unsafe { mprotect(self.base.byte_add(from), to - from, access) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` and nobody refers to it any more.
        if let Err(error) = unsafe { munmap(self.base, self.len) } {
            tracing::error!(%error, "guest memory could not be unmapped");
        }
    }
}

impl Trapdoor for Reservation {
    fn set_open(&self, open: bool) {
        let access = if open {
            MprotectFlags::empty()
        } else {
            MprotectFlags::READ | MprotectFlags::WRITE
        };
        if let Err(error) = self.protect(0, PAGE_BYTES, access) {
            tracing::error!(%error, open, "a guest could not be interrupted");
        }
    }
}

struct Memory {
    reservation: Arc<Reservation>,
    size: usize,
    capacity: usize,
}

// SAFETY: `as_ptr` is the base of a mapping that lives as long as `self`; its first `size` bytes
// are accessible (except for an extra memory while it is taken away, which nobody but the guest's
// own loads touches), everything up to the reservation's end is mapped without access.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.size
    }

    fn byte_capacity(&self) -> usize {
        self.capacity
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        if new_size > self.capacity {
            wasmtime::bail!("a memory cannot grow beyond its reservation");
        }
        if !new_size.is_multiple_of(PAGE_BYTES) || new_size < self.size {
            wasmtime::bail!("memories grow by whole pages");
        }
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        self.reservation.protect(self.size, new_size, access)?;
        self.size = new_size;
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.reservation.base.cast()
    }
}

struct Creator;

impl Creator {
    fn create(
        ty: &MemoryType,
        minimum: usize,
        capacity: usize,
        guard: usize,
    ) -> Result<Memory, String> {
        let len = capacity
            .checked_add(guard)
            .ok_or("a memory larger than the address space")?;
        let reservation =
            Reservation::new(len).map_err(|e| format!("no address space for a memory: {e}"))?;
        let mut memory = Memory {
            reservation: Arc::new(reservation),
            size: 0,
            capacity,
        };
        memory.grow_to(minimum).map_err(|e| e.to_string())?;
        if ty.minimum() == EXTRA_MINIMUM_PAGES && ty.maximum() == Some(EXTRA_MAXIMUM_PAGES) {
            let trapdoor = Arc::clone(&memory.reservation) as Arc<dyn Trapdoor>;
            INSTANTIATING.with(|watch| match &*watch.borrow() {
                Some(watch) => {
                    watch.add_trapdoor(trapdoor);
                    Ok(())
                }
                None => Err("a module was instantiated without a watch".to_owned()),
            })?;
        }
        Ok(memory)
    }
}

// SAFETY: memories are fresh anonymous mappings, hence zeroed, with the reservation and the guard
// that were asked for, and never move.
unsafe impl MemoryCreator for Creator {
    fn new_memory(
        &self,
        ty: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved_size_in_bytes: Option<usize>,
        guard_size_in_bytes: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let capacity = reserved_size_in_bytes
            .or(maximum)
            .unwrap_or(minimum)
            .max(minimum);
        let memory = Self::create(&ty, minimum, capacity, guard_size_in_bytes)?;
        Ok(Box::new(memory))
    }
}
