"""Keys, certificates and names: who a server, a site and an operator are."""
