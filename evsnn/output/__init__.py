"""What people and programs read: the console, tables, reports and pictures."""
