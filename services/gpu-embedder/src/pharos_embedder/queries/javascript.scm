(jsx_opening_element name: (identifier) @reference)
(jsx_self_closing_element name: (identifier) @reference)
(class_heritage (identifier) @reference)
(class_heritage (member_expression property: (property_identifier) @reference))
(field_definition property: (property_identifier) @name value: [(arrow_function) (function_expression)]) @method
