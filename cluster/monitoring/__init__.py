"""From counters to what a person sees: metrics, panel, status, dashboards."""
