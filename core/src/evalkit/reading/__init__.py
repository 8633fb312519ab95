"""What people see of finished runs, made once for terminals, pages and exports."""
