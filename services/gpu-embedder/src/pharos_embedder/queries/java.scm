(class_declaration name: (identifier) @name) @class
(record_declaration name: (identifier) @name) @class
(interface_declaration name: (identifier) @name) @interface
(annotation_type_declaration name: (identifier) @name) @interface
(enum_declaration name: (identifier) @name) @enum
(method_declaration name: (identifier) @name) @method
(constructor_declaration name: (identifier) @name) @method
(compact_constructor_declaration name: (identifier) @name) @method
(field_declaration declarator: (variable_declarator name: (identifier) @name)) @field

(package_declaration [(identifier) (scoped_identifier)] @package)
(import_declaration) @import

(method_invocation name: (identifier) @reference)
(method_invocation object: (identifier) @reference)
(method_reference (identifier) @reference)
(field_access object: (identifier) @reference)
(annotation name: (identifier) @reference)
(marker_annotation name: (identifier) @reference)
(type_identifier) @reference
