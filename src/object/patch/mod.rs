//! The four patches over plain values: JSON, merge, strategic merge, server-side apply.
