(class name: (_) @name) @class
(module name: (_) @name) @module
(program (method name: (_) @name) @function)
(method name: (_) @name) @method
(singleton_method name: (_) @name) @method
(alias name: (_) @name) @method
(call
  method: (identifier) @_maker
  arguments: (argument_list . (simple_symbol) @name)
  (#any-of? @_maker "alias_method" "define_method")) @method
(call
  method: (identifier) @_maker
  arguments: (argument_list (simple_symbol) @name)
  (#any-of? @_maker "attr_accessor" "attr_reader" "attr_writer")) @property
(assignment
  left: (constant) @name
  right: (call receiver: (constant) @_maker)
  (#any-of? @_maker "Class" "Data" "Module" "Struct")) @class
(assignment left: (constant) @name) @constant
(assignment left: (scope_resolution) @name) @constant

(call
  !receiver
  method: (identifier) @_loader
  arguments: (argument_list (string))
  (#any-of? @_loader "autoload" "load" "require" "require_relative")) @import

(call method: [(identifier) (constant)] @reference)
(constant) @reference
