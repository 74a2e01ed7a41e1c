"""What the pages of one experiment show: a report turned into texts, tables and charts."""
