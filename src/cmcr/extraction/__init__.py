"""From a list of items to a memory on disk: resumable, with a quarantine for what cannot be embedded."""
