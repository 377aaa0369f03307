import java.nio.file.Files;

public class Count {
    public static void main(String[] arguments) throws Exception {
        new Tally().count(Files.list(java.nio.file.Path.of(".")).count());
    }
}
