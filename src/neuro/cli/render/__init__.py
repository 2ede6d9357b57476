"""From values to text: times, sizes, tables, jobs. Pure functions; nothing here prints."""
