; Definitions: the capture's name is the kind, @name is its name.
(class_definition name: (identifier) @name) @class
(function_definition name: (identifier) @name) @function
(module (expression_statement (assignment left: (identifier) @name) @constant))
(module (expression_statement (assignment left: (pattern_list (identifier) @name)) @constant))
(module (expression_statement (assignment left: (tuple_pattern (identifier) @name)) @constant))
(type_alias_statement left: (type (identifier) @name)) @type
(type_alias_statement left: (type (generic_type . (identifier) @name))) @type

(import_statement) @import
(import_from_statement) @import

(call function: (identifier) @reference)
(call function: (attribute attribute: (identifier) @reference))
(class_definition superclasses: (argument_list (identifier) @reference))
(class_definition superclasses: (argument_list (attribute attribute: (identifier) @reference)))
(decorator (identifier) @reference)
(decorator (attribute attribute: (identifier) @reference))
(type (identifier) @reference)
(type (attribute attribute: (identifier) @reference))
(type (generic_type (identifier) @reference))
(type (binary_operator (identifier) @reference))
(except_clause (identifier) @reference)
(except_clause (tuple (identifier) @reference))
(except_clause (as_pattern (identifier) @reference))
(except_clause (as_pattern (tuple (identifier) @reference)))
(raise_statement . (identifier) @reference)
(class_pattern (dotted_name (identifier) @reference .))
