"""The pages of uplift studies, scored lists and policies."""
