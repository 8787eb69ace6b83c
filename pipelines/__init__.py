"""How a corpus is made: reading archives, extraction, language, recipes, pages into Parquet."""
