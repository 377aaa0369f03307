(class_definition name: (_) @name) @class
(object_definition name: (_) @name) @object
(package_object name: (_) @name) @object
(trait_definition name: (_) @name) @trait
(enum_definition name: (_) @name) @enum
(given_definition name: (_) @name) @object
(function_definition name: (_) @name) @function
(function_declaration name: (_) @name) @function
(type_definition name: (_) @name) @type
(template_body (val_definition pattern: [(identifier) @name (identifiers (identifier) @name)]) @property)
(template_body (var_definition pattern: [(identifier) @name (identifiers (identifier) @name)]) @property)
(template_body (val_declaration name: (identifier) @name) @property)
(compilation_unit (val_definition pattern: [(identifier) @name (identifiers (identifier) @name)]) @variable)
(compilation_unit (var_definition pattern: [(identifier) @name (identifiers (identifier) @name)]) @variable)
(extension_definition parameters: (parameters (parameter type: (_) @name))) @namespace
(package_clause name: (_) @name body: (_)) @namespace

(package_clause name: (_) @package !body)
(import_declaration) @import

(call_expression function: (identifier) @reference)
(call_expression function: (field_expression field: (identifier) @reference))
(generic_function function: (identifier) @reference)
(generic_function function: (field_expression field: (identifier) @reference))
(field_expression value: (identifier) @reference)
(infix_expression operator: (identifier) @reference)
(annotation name: (_) @reference)
(type_identifier) @reference
