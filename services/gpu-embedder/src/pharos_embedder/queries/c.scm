; What C and C++ have in common. What a declarator declares is worked out in `declarators`.
(function_definition declarator: (_) @declarator)
(declaration declarator: (_) @declarator)
(struct_specifier name: (type_identifier) @name body: (_)) @struct
(union_specifier name: (type_identifier) @name body: (_)) @union
(enum_specifier name: (type_identifier) @name body: (_)) @enum
(type_definition type: (struct_specifier !name) declarator: (type_identifier) @name) @struct
(type_definition type: (union_specifier !name) declarator: (type_identifier) @name) @union
(type_definition type: (enum_specifier !name) declarator: (type_identifier) @name) @enum
(type_definition declarator: (type_identifier) @name) @type
(type_definition declarator: (_ declarator: (type_identifier) @name)) @type
(type_definition declarator: (_ declarator: (parenthesized_declarator (_ declarator: (type_identifier) @name)))) @type
(preproc_def name: (identifier) @name value: (_)) @macro
(preproc_function_def name: (identifier) @name) @macro

(preproc_include) @import

(call_expression function: (identifier) @reference)
(sizeof_expression value: (parenthesized_expression (identifier) @reference))
(initializer_pair value: (identifier) @reference)
(type_identifier) @reference

(ERROR) @error
