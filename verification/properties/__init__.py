"""`for_all_mdps`, strategies, the pytest plugin and its ledger."""
