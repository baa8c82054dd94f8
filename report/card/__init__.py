"""The card of a study: base and winner side by side with their costs, as HTML, SVG and PNG."""
