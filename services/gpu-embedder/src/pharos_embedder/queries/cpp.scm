(field_declaration declarator: (_) @declarator)
(class_specifier name: (type_identifier) @name body: (_)) @class
(class_specifier name: (template_type name: (type_identifier) @name) body: (_)) @class
(struct_specifier name: (template_type name: (type_identifier) @name) body: (_)) @struct
(namespace_definition name: (_) @name) @namespace
(alias_declaration name: (type_identifier) @name) @type
(concept_definition name: (identifier) @name) @type

(call_expression function: (field_expression field: (field_identifier) @reference))
(qualified_identifier name: (identifier) @reference)
(qualified_identifier scope: (namespace_identifier) @reference)
(template_function name: (identifier) @reference)
(template_method name: (field_identifier) @reference)
