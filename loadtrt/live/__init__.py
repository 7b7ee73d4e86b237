"""While a run is going: what the GPU says of itself, and what people and dashboards are told."""
