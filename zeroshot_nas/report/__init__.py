"""What came of runs, for people to read: tables and plots."""
