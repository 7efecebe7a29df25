//! The words of the SQL that clients may write.

/// Names that a SQL editor completes and that drivers report, from DuckDB itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqlVocabulary {
    pub keywords: Vec<String>,
    pub numeric_functions: Vec<String>,
    pub string_functions: Vec<String>,
    pub datetime_functions: Vec<String>,
    pub system_functions: Vec<String>,
}
