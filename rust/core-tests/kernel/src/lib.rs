// SPDX-License-Identifier: GPL-2.0

//! What the pure core needs of the kernel crate, for the host.
//!
//! Names and behaviour are the kernel's. Allocations are counted, and fail on demand: see
//! [`alloc::ledger`].

/// Memory pages.
pub mod page {
    /// The size of a page, in bytes.
    pub const PAGE_SIZE: usize = 4096;
}

/// Fallible allocation.
pub mod alloc {
    use std::marker::PhantomData;
    use std::ops::{Deref, DerefMut};

    /// There is no memory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AllocError;

    /// How to allocate.
    #[derive(Clone, Copy, Debug)]
    pub struct Flags;

    /// The flags of an allocation that may sleep, charged to the memory cgroup.
    pub const GFP_KERNEL_ACCOUNT: Flags = Flags;

    /// Where memory comes from.
    pub trait Allocator {}

    /// The allocators.
    pub mod allocator {
        /// `kmalloc()`.
        #[derive(Debug)]
        pub struct Kmalloc;

        impl super::Allocator for Kmalloc {}
    }

    /// What this thread has allocated.
    pub mod ledger {
        use std::cell::Cell;

        use super::AllocError;

        thread_local! {
            static BUDGET: Cell<usize> = const { Cell::new(usize::MAX) };
            static HELD: Cell<usize> = const { Cell::new(0) };
            static LARGEST: Cell<usize> = const { Cell::new(0) };
        }

        /// Lets the next `count` allocations succeed and all later ones fail.
        pub fn allow(count: usize) {
            BUDGET.set(count);
        }

        /// How many bytes are allocated.
        #[must_use]
        pub fn held() -> usize {
            HELD.get()
        }

        /// The size of the largest allocation since this was called last, in bytes.
        #[must_use]
        pub fn take_largest() -> usize {
            LARGEST.take()
        }

        /// An allocation of `old` bytes is to have `new` bytes.
        pub(super) fn resize(old: usize, new: usize) -> Result<(), AllocError> {
            if new > old {
                BUDGET.set(BUDGET.get().checked_sub(1).ok_or(AllocError)?);
                LARGEST.set(LARGEST.get().max(new));
            }
            HELD.set(HELD.get() - old + new);
            Ok(())
        }
    }

    /// A vector that grows as the kernel's does: to double its capacity, or what is asked for.
    #[derive(Debug)]
    pub struct Vec<T, A: Allocator> {
        items: std::vec::Vec<T>,
        allocator: PhantomData<A>,
    }

    impl<T, A: Allocator> Vec<T, A> {
        /// Returns an empty vector, without allocating.
        #[must_use]
        pub const fn new() -> Self {
            Self { items: std::vec::Vec::new(), allocator: PhantomData }
        }

        /// Returns an empty vector that has room for `capacity` items.
        ///
        /// # Errors
        ///
        /// Fails on demand.
        pub fn with_capacity(capacity: usize, _flags: Flags) -> Result<Self, AllocError> {
            let mut vec = Self::new();
            vec.grow(capacity)?;
            Ok(vec)
        }

        /// Returns a vector of `len` clones of `item`.
        ///
        /// # Errors
        ///
        /// Fails on demand.
        pub fn from_elem(item: T, len: usize, flags: Flags) -> Result<Self, AllocError>
        where
            T: Clone,
        {
            let mut vec = Self::with_capacity(len, flags)?;
            vec.items.resize(len, item);
            Ok(vec)
        }

        /// Appends an item.
        ///
        /// # Errors
        ///
        /// Fails on demand where it has to allocate.
        pub fn push(&mut self, item: T, _flags: Flags) -> Result<(), AllocError> {
            let capacity = self.items.capacity();
            if self.items.len() == capacity {
                self.grow((capacity * 2).max(capacity + 1))?;
            }
            self.items.push(item);
            Ok(())
        }

        fn grow(&mut self, capacity: usize) -> Result<(), AllocError> {
            let item = size_of::<T>();
            ledger::resize(self.items.capacity() * item, capacity * item)?;
            self.items.reserve_exact(capacity - self.items.len());
            Ok(())
        }
    }

    impl<T, A: Allocator> Default for Vec<T, A> {
        fn default() -> Self {
            Self::new()
        }
    }

    impl<T, A: Allocator> Deref for Vec<T, A> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            &self.items
        }
    }

    impl<T, A: Allocator> DerefMut for Vec<T, A> {
        fn deref_mut(&mut self) -> &mut [T] {
            &mut self.items
        }
    }

    impl<T, A: Allocator> Drop for Vec<T, A> {
        fn drop(&mut self) {
            let size = self.items.capacity() * size_of::<T>();
            ledger::resize(size, 0).expect("to free cannot fail");
        }
    }
}
