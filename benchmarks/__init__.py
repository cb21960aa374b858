"""Every figure Tollgate claims, measured beside its peers in one run."""
