"""All experiments together: what needs a person, what the wins bring, what holdouts say, which tactics worked."""
