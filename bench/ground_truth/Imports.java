import com.sun.source.tree.CompilationUnitTree;
import com.sun.source.tree.ImportTree;
import com.sun.source.tree.MemberSelectTree;
import com.sun.source.util.JavacTask;
import com.sun.source.util.TreePath;
import com.sun.source.util.Trees;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import javax.lang.model.element.Element;
import javax.lang.model.element.ElementKind;
import javax.tools.ToolProvider;

/** Every import of a class as javac understands it, without a class path: file, a tab, file of the class. */
public class Imports {
    public static void main(String[] arguments) throws Exception {
        Path root = Path.of(arguments[0]).toRealPath();
        List<Path> paths;
        try (var walked = Files.walk(root)) {
            paths = walked.filter(path -> path.toString().endsWith(".java")).sorted().toList();
        }
        var compiler = ToolProvider.getSystemJavaCompiler();
        var manager = compiler.getStandardFileManager(problem -> {}, null, null);
        var task = (JavacTask) compiler.getTask(
            null, manager, problem -> {}, List.of("-proc:none"), null, manager.getJavaFileObjectsFromPaths(paths));
        var trees = Trees.instance(task);
        Iterable<? extends CompilationUnitTree> units = task.parse();
        Map<Element, Path> places = new HashMap<>();
        task.analyze();
        for (var unit : units) {
            for (var type : unit.getTypeDecls()) {
                var element = trees.getElement(TreePath.getPath(unit, type));
                if (element != null) places.put(element, Path.of(unit.getSourceFile().toUri()));
            }
        }
        for (var unit : units) {
            Path file = Path.of(unit.getSourceFile().toUri());
            for (ImportTree one : unit.getImports()) {
                var named = (MemberSelectTree) one.getQualifiedIdentifier();
                var path = TreePath.getPath(unit, one.isStatic() ? named.getExpression() : named);
                if (named.getIdentifier().contentEquals("*")) path = TreePath.getPath(unit, named.getExpression());
                var element = trees.getElement(path);
                while (element != null && !places.containsKey(element)) element = element.getEnclosingElement();
                if (element == null || element.getKind() == ElementKind.PACKAGE) continue;
                Path target = places.get(element);
                if (target != null && !target.equals(file)) {
                    System.out.println(root.relativize(file) + "\t" + root.relativize(target));
                }
            }
        }
    }
}
