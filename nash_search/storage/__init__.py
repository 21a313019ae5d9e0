"""What a study is on disk and in its database: rows, finished folders, locks, and how a kill is put right."""
