//! A fast allocator for the many small, short-lived values of a job.
//!
//! Wasm's default allocator costs some 20 ns for each allocation and as much to free it, which a
//! job pays for every string of every record. Here small blocks come from lists of free blocks, one
//! for each size class; the size that Rust hands back on freeing says which list a block belongs to,
//! so blocks need no headers. What is larger goes to the default allocator.
//!
//! # Invariants
//!
//! 1. A block of class `c` has exactly `c`'s size, is aligned to it up to 16 bytes, and is on
//!    `c`'s list whenever it is free.
//! 2. Memory of a class is never used for another: at worst a job keeps the most it ever had of
//!    each class.
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;

/// Blocks up to this size are handled here.
const SMALL_MAX: usize = 1024;
/// Sizes are rounded up to a multiple of this; also the largest alignment handled here.
const STEP: usize = 16;
const CLASSES: usize = SMALL_MAX / STEP;
/// How much is taken from the default allocator at a time.
const CHUNK: usize = 64 * 1024;

struct Lists {
    /// The first free block of each class; each block's first word points to the next one.
    free: [*mut u8; CLASSES],
    /// The unused rest of the current chunk.
    next: *mut u8,
    left: usize,
}

struct SmallBlocks(UnsafeCell<Lists>);

// SAFETY: components have one thread.
unsafe impl Sync for SmallBlocks {}

#[global_allocator]
static ALLOCATOR: SmallBlocks = SmallBlocks(UnsafeCell::new(Lists {
    free: [ptr::null_mut(); CLASSES],
    next: ptr::null_mut(),
    left: 0,
}));

#[inline]
fn is_small(layout: Layout) -> bool {
    layout.size() <= SMALL_MAX && layout.align() <= STEP && layout.size() > 0
}

#[inline]
fn class_of(size: usize) -> usize {
    (size - 1) / STEP
}

// SAFETY: blocks come from `System` or from chunks of it, are as large and aligned as their class,
// which is no less than asked for, and are on no list while in use.
unsafe impl GlobalAlloc for SmallBlocks {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_small(layout) {
            // SAFETY: the caller's promises are handed on.
            return unsafe { System.alloc(layout) };
        }
        // SAFETY: one thread, and no reference outlives this function.
        let lists = unsafe { &mut *self.0.get() };
        let class = class_of(layout.size());
        let block = lists.free[class];
        if block.is_null() {
            return carve(lists, class);
        }
        // SAFETY: a free block's first word points to the next free block of its class.
        lists.free[class] = unsafe { block.cast::<*mut u8>().read() };
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !is_small(layout) {
            // SAFETY: the block came from there.
            return unsafe { System.dealloc(block, layout) };
        }
        // SAFETY: as in `alloc`.
        let lists = unsafe { &mut *self.0.get() };
        let class = class_of(layout.size());
        // SAFETY: the block is free now and at least 16 bytes long.
        unsafe { block.cast::<*mut u8>().write(lists.free[class]) };
        lists.free[class] = block;
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the alignment is valid and the caller promises that the size is.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (is_small(layout), is_small(new)) {
            (true, true) if class_of(layout.size()) == class_of(new_size) => block,
            // SAFETY: the block came from there and stays there.
            (false, false) => unsafe { System.realloc(block, layout, new_size) },
            // SAFETY: both blocks hold what is copied, and the old one is not used any more.
            _ => unsafe {
                let moved = self.alloc(new);
                if !moved.is_null() {
                    ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
                    self.dealloc(block, layout);
                }
                moved
            },
        }
    }
}

/// Takes a block from the current chunk, or from a new one.
#[cold]
fn carve(lists: &mut Lists, class: usize) -> *mut u8 {
    let size = (class + 1) * STEP;
    if lists.left < size {
        let Ok(layout) = Layout::from_size_align(CHUNK, STEP) else {
            return ptr::null_mut();
        };
        // SAFETY: the chunk's size is not zero.
        let chunk = unsafe { System.alloc(layout) };
        if chunk.is_null() {
            return chunk;
        }
        lists.next = chunk;
        lists.left = CHUNK;
    }
    let block = lists.next;
    // SAFETY: the chunk has at least `size` bytes left.
    lists.next = unsafe { block.add(size) };
    lists.left -= size;
    block
}
