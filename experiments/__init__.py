"""What was asked of nash-search and measured: one module per question, listed in README.md. Not part of the wheel."""
