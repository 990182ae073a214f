"""The report's section "Is the reasoning load-bearing?": from the JSON files in RUN/loadbearing/ to words, tables, figures.

records (what a study says), reader (JSON to records), words (estimates to sentences), tables, figures, section (all of a run).
"""
