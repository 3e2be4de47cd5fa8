"""Who did what with which picture: records that are only ever added, each chained to the one before it by hash."""
