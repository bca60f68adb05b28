"""What the admission policies of the chart let through and what they reject: one table for the API
server double and for a real one."""
