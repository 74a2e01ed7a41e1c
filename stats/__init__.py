"""Statistics on summaries: moments in, effects or problem codes out. No SQL, HTTP, clock or global random state."""
