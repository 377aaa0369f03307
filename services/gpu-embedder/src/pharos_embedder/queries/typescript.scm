(abstract_class_declaration name: (type_identifier) @name) @class
(interface_declaration name: (type_identifier) @name) @interface
(type_alias_declaration name: (type_identifier) @name) @type
(enum_declaration name: (identifier) @name) @enum
(internal_module name: (_) @name) @module
(module name: (_) @name) @module
(function_signature name: (identifier) @name) @function
(abstract_method_signature name: (property_identifier) @name) @method
(method_signature name: (property_identifier) @name) @method
(program (ambient_declaration (lexical_declaration (variable_declarator name: (identifier) @name) @constant)))
(program (export_statement (ambient_declaration (lexical_declaration (variable_declarator name: (identifier) @name) @constant))))
(public_field_definition name: (property_identifier) @name value: [(arrow_function) (function_expression)]) @method

(program (comment) @import (#match? @import "^///\\s*<reference\\s+path"))

(extends_clause value: (identifier) @reference)
(extends_clause value: (member_expression property: (property_identifier) @reference))
(type_identifier) @reference
(decorator (identifier) @reference)
(decorator (call_expression function: (identifier) @reference))
