"""One table for every output: as Markdown, as CSV (`spreadsheet`), in pages (`templates/table.html`), on the terminal (`terminal/console.py`)."""
