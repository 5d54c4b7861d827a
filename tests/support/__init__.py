"""What tests share: facts, servers, stores, commands, oracles, and the pages that are made of scenarios."""
