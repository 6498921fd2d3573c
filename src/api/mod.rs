//! The API server: one visible chain of filters, one route table, one generic handler a verb.
