"""The graph underneath the rules: values, builder, sites, loading and saving."""
