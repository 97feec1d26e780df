//! Stage II: which rows a budget keeps.
