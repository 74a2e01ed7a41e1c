"""The pages of people: accounts, roles, keys, the audit trail, second persons."""
