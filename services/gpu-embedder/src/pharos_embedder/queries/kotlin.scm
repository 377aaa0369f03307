(class_declaration "interface" name: (identifier) @name) @interface
(class_declaration (modifiers (class_modifier "enum")) name: (identifier) @name) @enum
(class_declaration name: (identifier) @name) @class
(object_declaration name: (identifier) @name) @object
(companion_object name: (identifier) @name) @object
(function_declaration (user_type) @receiver . "." . name: (identifier) @name) @function
(function_declaration (nullable_type) @receiver . "." . name: (identifier) @name) @function
(function_declaration name: (identifier) @name) @function
(secondary_constructor "constructor" @name) @method
(property_declaration
  (modifiers (property_modifier "const")) (variable_declaration (identifier) @name)) @constant
(source_file (property_declaration (user_type) @receiver . "." (variable_declaration (identifier) @name)) @variable)
(source_file (property_declaration (variable_declaration (identifier) @name)) @variable)
(class_body (property_declaration (variable_declaration (identifier) @name)) @property)
(type_alias type: (identifier) @name) @type

(package_header (qualified_identifier) @package)
(import) @import

(call_expression . (identifier) @reference)
(navigation_expression (_) (identifier) @reference)
(navigation_expression . (identifier) @reference)
(callable_reference (identifier) @reference)
(user_type (identifier) @reference)
