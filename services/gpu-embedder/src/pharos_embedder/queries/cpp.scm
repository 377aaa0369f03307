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

; Names of the standard library are counted as references above, and not meant to be found here.
(qualified_identifier
  scope: (namespace_identifier) @_std
  name: [
    (identifier) @foreign
    (type_identifier) @foreign
    (template_function name: (identifier) @foreign)
    (template_type name: (type_identifier) @foreign)
    (qualified_identifier name: (identifier) @foreign)
    (qualified_identifier name: (type_identifier) @foreign)
  ]
  (#eq? @_std "std"))
