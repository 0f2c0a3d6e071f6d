"""Submit, watch and cancel jobs on clusters, clouds and hosts: a standalone provisioning library."""
