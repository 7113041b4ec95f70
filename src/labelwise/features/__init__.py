"""From structures to rows of numbers, kept in memory or on disk."""
