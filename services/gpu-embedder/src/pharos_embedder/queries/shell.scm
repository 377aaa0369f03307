(function_definition name: (word) @name) @function
(program (declaration_command "readonly" (variable_assignment name: (variable_name) @name)) @constant)
(program (declaration_command (variable_assignment name: (variable_name) @name)) @variable)
(program (variable_assignment name: (variable_name) @name) @variable)

(command
  name: (command_name (word) @_loader)
  argument: (_) @import
  (#any-of? @_loader "source" "."))

(command_name (word) @reference)
