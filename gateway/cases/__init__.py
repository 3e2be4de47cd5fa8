"""Cases that clinicians keep: outcomes and later findings, never pictures. Off unless a database is set."""
