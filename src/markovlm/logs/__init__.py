"""Reading what runs wrote: ours and other frameworks'; one schema."""
