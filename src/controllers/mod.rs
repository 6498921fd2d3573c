//! The controllers: one file each and one line in the list.
