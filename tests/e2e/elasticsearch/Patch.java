import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.function.UnaryOperator;
import java.util.zip.ZipFile;
import jdk.internal.org.objectweb.asm.ClassReader;
import jdk.internal.org.objectweb.asm.ClassVisitor;
import jdk.internal.org.objectweb.asm.ClassWriter;
import jdk.internal.org.objectweb.asm.MethodVisitor;
import jdk.internal.org.objectweb.asm.Opcodes;

/**
 * Elasticsearch 7.0 was built with Lucene 8.0, the jar has 8.3: there a method that Elasticsearch overrides is final, and
 * another one is called in its place. Usage: Patch JAR FOLDER.
 */
public class Patch implements Opcodes {
  static final String SEARCHER = "org/apache/lucene/search/IndexSearcher";
  static final String CONTEXT = "org/elasticsearch/search/internal/ContextIndexSearcher";
  static final String FREQUENCIES = "org/elasticsearch/search/dfs/AggregatedDfs";
  static final String TERM = "org/apache/lucene/index/Term";
  static final String STATISTICS = "org/apache/lucene/search/TermStatistics";
  static final String METHOD = "termStatistics";
  static final String NEW = "(L" + TERM + ";IJ)L" + STATISTICS + ";";

  public static void main(String[] arguments) throws IOException {
    try (ZipFile jar = new ZipFile(arguments[0])) {
      Path folder = Paths.get(arguments[1]);
      rewrite(jar, folder, SEARCHER, Patch::open);
      rewrite(jar, folder, CONTEXT, Patch::override);
    }
  }

  static void rewrite(ZipFile jar, Path folder, String name, UnaryOperator<ClassVisitor> change) throws IOException {
    ClassWriter writer = new ClassWriter(0);
    try (InputStream content = jar.getInputStream(jar.getEntry(name + ".class"))) {
      new ClassReader(content.readAllBytes()).accept(change.apply(writer), 0);
    }
    Path target = folder.resolve(name + ".class");
    Files.createDirectories(target.getParent());
    Files.write(target, writer.toByteArray());
  }

  /** The method may be overridden again. */
  static ClassVisitor open(ClassVisitor next) {
    return new ClassVisitor(ASM8, next) {
      @Override
      public MethodVisitor visitMethod(int access, String name, String kind, String signature, String[] errors) {
        return super.visitMethod(name.equals(METHOD) ? access & ~ACC_FINAL : access, name, kind, signature, errors);
      }
    };
  }

  /** The method that is called now takes the frequencies of all indexes too, where they were gathered. */
  static ClassVisitor override(ClassVisitor next) {
    return new ClassVisitor(ASM8, next) {
      @Override
      public void visitEnd() {
        MethodVisitor method = super.visitMethod(ACC_PUBLIC, METHOD, NEW, null, new String[] {"java/io/IOException"});
        method.visitCode();
        method.visitVarInsn(ALOAD, 0);
        method.visitFieldInsn(GETFIELD, CONTEXT, "aggregatedDfs", "L" + FREQUENCIES + ";");
        method.visitVarInsn(ALOAD, 1);
        method.visitVarInsn(ALOAD, 0);
        method.visitVarInsn(ALOAD, 1);
        method.visitVarInsn(ILOAD, 2);
        method.visitVarInsn(LLOAD, 3);
        method.visitMethodInsn(INVOKESPECIAL, SEARCHER, METHOD, NEW, false);
        String kind = "(L" + FREQUENCIES + ";L" + TERM + ";L" + STATISTICS + ";)L" + STATISTICS + ";";
        method.visitMethodInsn(INVOKESTATIC, "Engine", "gathered", kind, false);
        method.visitInsn(ARETURN);
        method.visitMaxs(7, 5);
        method.visitEnd();
        super.visitEnd();
      }
    };
  }
}
