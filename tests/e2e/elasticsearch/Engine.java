import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Supplier;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.index.Term;
import org.apache.lucene.search.TermStatistics;
import org.elasticsearch.Version;
import org.elasticsearch.action.ActionListener;
import org.elasticsearch.cluster.node.DiscoveryNode;
import org.elasticsearch.common.breaker.CircuitBreaker;
import org.elasticsearch.common.breaker.NoopCircuitBreaker;
import org.elasticsearch.common.bytes.BytesArray;
import org.elasticsearch.common.bytes.BytesReference;
import org.elasticsearch.common.component.AbstractLifecycleComponent;
import org.elasticsearch.common.io.stream.NamedWriteableRegistry;
import org.elasticsearch.common.lease.Releasable;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.network.NetworkService;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.common.transport.BoundTransportAddress;
import org.elasticsearch.common.transport.TransportAddress;
import org.elasticsearch.common.util.BigArrays;
import org.elasticsearch.common.util.PageCacheRecycler;
import org.elasticsearch.common.util.concurrent.ThreadContext;
import org.elasticsearch.common.xcontent.NamedXContentRegistry;
import org.elasticsearch.env.Environment;
import org.elasticsearch.http.HttpChannel;
import org.elasticsearch.http.HttpInfo;
import org.elasticsearch.http.HttpRequest;
import org.elasticsearch.http.HttpResponse;
import org.elasticsearch.http.HttpServerTransport;
import org.elasticsearch.http.HttpStats;
import org.elasticsearch.index.IndexSettings;
import org.elasticsearch.index.analysis.AbstractIndexAnalyzerProvider;
import org.elasticsearch.index.analysis.AnalyzerProvider;
import org.elasticsearch.indices.analysis.AnalysisModule.AnalysisProvider;
import org.elasticsearch.indices.breaker.CircuitBreakerService;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.AnalysisPlugin;
import org.elasticsearch.plugins.NetworkPlugin;
import org.elasticsearch.plugins.Plugin;
import org.elasticsearch.rest.AbstractRestChannel;
import org.elasticsearch.rest.BytesRestResponse;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.RestResponse;
import org.elasticsearch.rest.RestStatus;
import org.elasticsearch.search.dfs.AggregatedDfs;
import org.elasticsearch.threadpool.ThreadPool;
import org.elasticsearch.transport.ConnectTransportException;
import org.elasticsearch.transport.ConnectionProfile;
import org.elasticsearch.transport.RequestHandlerRegistry;
import org.elasticsearch.transport.Transport;
import org.elasticsearch.transport.TransportMessageListener;
import org.elasticsearch.transport.TransportRequest;
import org.elasticsearch.transport.TransportStats;

/**
 * One node of the Elasticsearch 7.0 server core, for tests. The jar that carries it lacks the modules for HTTP and for
 * the analyzer `english`: HTTP comes from the JDK here, the analyzer from Lucene. Usage: Engine HOME; the node ends with
 * its standard input.
 */
public class Engine {
  static final long MAX_CONTENT = 100L << 20;
  static volatile int port;

  public static void main(String[] arguments) throws Exception {
    Path home = Paths.get(arguments[0]).toAbsolutePath();
    Files.createDirectories(home.resolve("config"));
    LogConfigurator.registerErrorListener();
    Settings settings = Settings.builder()
        .put("path.home", home.toString())
        .put("path.data", home.resolve("data").toString())
        .put("cluster.name", "dsrl-test")
        .put("node.name", "only")
        .put("transport.type", "none")
        .put("http.type", "jdk")
        .put("discovery.type", "single-node")
        .put("cluster.routing.allocation.disk.threshold_enabled", false)
        .build();
    try (Node node = new TestNode(new Environment(settings, home.resolve("config")))) {
      node.start();
      System.out.println("STARTED " + port + " Elasticsearch " + Version.CURRENT);
      System.out.flush();
      while (System.in.read() >= 0) {}
    }
    System.exit(0);
  }

  /** Frequencies of a term over all indexes that are searched, else its own; called by what Patch adds. */
  public static TermStatistics gathered(AggregatedDfs all, Term term, TermStatistics own) {
    TermStatistics found = all == null ? null : all.termStatistics().get(term);
    return found == null ? own : found;
  }

  static class TestNode extends Node {
    TestNode(Environment environment) {
      super(environment, Collections.<Class<? extends Plugin>>singletonList(Parts.class), true);
    }
  }

  public static class Parts extends Plugin implements NetworkPlugin, AnalysisPlugin {
    public Parts() {}

    @Override
    public Map<String, AnalysisProvider<AnalyzerProvider<? extends Analyzer>>> getAnalyzers() {
      return Collections.singletonMap("english", (index, environment, name, settings) -> new English(index, name, settings));
    }

    @Override
    public Map<String, Supplier<Transport>> getTransports(Settings settings, ThreadPool threads, PageCacheRecycler recycler,
        CircuitBreakerService breakers, NamedWriteableRegistry registry, NetworkService network) {
      return Collections.singletonMap("none", NoTransport::new);
    }

    @Override
    public Map<String, Supplier<HttpServerTransport>> getHttpTransports(Settings settings, ThreadPool threads,
        BigArrays arrays, PageCacheRecycler recycler, CircuitBreakerService breakers, NamedXContentRegistry registry,
        NetworkService network, HttpServerTransport.Dispatcher dispatcher) {
      return Collections.singletonMap("jdk", () -> new JdkHttp(threads, registry, dispatcher));
    }
  }

  static class English extends AbstractIndexAnalyzerProvider<EnglishAnalyzer> {
    final EnglishAnalyzer analyzer = new EnglishAnalyzer();

    English(IndexSettings index, String name, Settings settings) {
      super(index, name, settings);
    }

    @Override
    public EnglishAnalyzer get() {
      return analyzer;
    }
  }

  static BoundTransportAddress address(int port) {
    TransportAddress own = new TransportAddress(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
    return new BoundTransportAddress(new TransportAddress[] {own}, own);
  }

  /** A single node: nothing ever connects. */
  static class NoTransport extends AbstractLifecycleComponent implements Transport {
    final ResponseHandlers responses = new ResponseHandlers();
    final Map<String, RequestHandlerRegistry<?>> requests = new ConcurrentHashMap<>();

    public <R extends TransportRequest> void registerRequestHandler(RequestHandlerRegistry<R> handler) {
      requests.put(handler.getAction(), handler);
    }

    @SuppressWarnings("unchecked")
    public RequestHandlerRegistry<? extends TransportRequest> getRequestHandler(String action) {
      return (RequestHandlerRegistry<? extends TransportRequest>) requests.get(action);
    }

    public void addMessageListener(TransportMessageListener listener) {}

    public boolean removeMessageListener(TransportMessageListener listener) {
      return true;
    }

    public BoundTransportAddress boundAddress() {
      return address(9300);
    }

    public Map<String, BoundTransportAddress> profileBoundAddresses() {
      return Collections.emptyMap();
    }

    public TransportAddress[] addressesFromString(String given, int most) {
      return new TransportAddress[0];
    }

    public List<String> getLocalAddresses() {
      return Collections.emptyList();
    }

    public CircuitBreaker getInFlightRequestBreaker() {
      return new NoopCircuitBreaker("in-flight");
    }

    public Releasable openConnection(DiscoveryNode node, ConnectionProfile profile, ActionListener<Connection> listener) {
      listener.onFailure(new ConnectTransportException(node, "single node"));
      return () -> {};
    }

    public TransportStats getStats() {
      return new TransportStats(0, 0, 0, 0, 0);
    }

    public ResponseHandlers getResponseHandlers() {
      return responses;
    }

    protected void doStart() {}

    protected void doStop() {}

    protected void doClose() {}
  }

  static class JdkHttp extends AbstractLifecycleComponent implements HttpServerTransport {
    final ThreadPool threads;
    final NamedXContentRegistry registry;
    final Dispatcher dispatcher;
    HttpServer server;
    ExecutorService workers;

    JdkHttp(ThreadPool threads, NamedXContentRegistry registry, Dispatcher dispatcher) {
      this.threads = threads;
      this.registry = registry;
      this.dispatcher = dispatcher;
    }

    public BoundTransportAddress boundAddress() {
      return address(port);
    }

    public HttpInfo info() {
      return new HttpInfo(boundAddress(), MAX_CONTENT);
    }

    public HttpStats stats() {
      return new HttpStats(0, 0);
    }

    protected void doStart() {
      try {
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), Integer.getInteger("port", 0)), 0);
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
      workers = Executors.newFixedThreadPool(16);
      server.setExecutor(workers);
      server.createContext("/", this::handle);
      server.start();
      port = server.getAddress().getPort();
    }

    protected void doStop() {
      if (server != null) {
        server.stop(0);
        workers.shutdown();
      }
    }

    protected void doClose() {}

    void handle(HttpExchange exchange) throws IOException {
      byte[] body = exchange.getRequestBody().readNBytes((int) MAX_CONTENT + 1);
      if (body.length > MAX_CONTENT) {
        exchange.sendResponseHeaders(413, -1);
        exchange.close();
        return;
      }
      int status = 500;
      String type = "application/json; charset=UTF-8";
      byte[] content;
      try {
        RestResponse response = dispatch(exchange, body).get();
        status = response.status().getStatus();
        type = response.contentType();
        content = BytesReference.toBytes(response.content());
      } catch (Exception error) {
        String words = String.valueOf(error).replace("\\", "").replace("\"", "'").replaceAll("\\s", " ");
        content = ("{\"error\":\"" + words + "\",\"status\":500}").getBytes(StandardCharsets.UTF_8);
      }
      Headers headers = exchange.getResponseHeaders();
      headers.set("X-Elastic-Product", "Elasticsearch"); // sent by stock servers since 7.14
      headers.set("Content-Type", type);
      boolean empty = content.length == 0 || exchange.getRequestMethod().equals("HEAD");
      exchange.sendResponseHeaders(status, empty ? -1 : content.length);
      if (!empty) {
        exchange.getResponseBody().write(content);
      }
      exchange.close();
    }

    CompletableFuture<RestResponse> dispatch(HttpExchange exchange, byte[] body) {
      CompletableFuture<RestResponse> reply = new CompletableFuture<>();
      Map<String, List<String>> headers = new HashMap<>();
      exchange.getRequestHeaders().forEach((name, values) -> headers.put(canonical(name), new ArrayList<>(values)));
      RestRequest request = RestRequest.request(registry, new Request(exchange, headers, body), new Channel(exchange));
      AbstractRestChannel channel = new AbstractRestChannel(request, true) {
        public void sendResponse(RestResponse response) { // copied: the bytes may be used again once this returns
          BytesReference copy = new BytesArray(BytesReference.toBytes(response.content()));
          reply.complete(new BytesRestResponse(response.status(), response.contentType(), copy));
        }
      };
      ThreadContext context = threads.getThreadContext();
      try (ThreadContext.StoredContext stashed = context.stashContext()) {
        dispatcher.dispatchRequest(request, channel, context);
      }
      return reply;
    }

    static String canonical(String name) {
      return name.equalsIgnoreCase("Content-type") ? "Content-Type" : name;
    }
  }

  static class Request implements HttpRequest {
    final HttpExchange exchange;
    final Map<String, List<String>> headers;
    final BytesReference body;

    Request(HttpExchange exchange, Map<String, List<String>> headers, byte[] body) {
      this.exchange = exchange;
      this.headers = headers;
      this.body = new BytesArray(body);
    }

    public RestRequest.Method method() {
      return RestRequest.Method.valueOf(exchange.getRequestMethod());
    }

    public String uri() {
      return exchange.getRequestURI().toString();
    }

    public BytesReference content() {
      return body;
    }

    public Map<String, List<String>> getHeaders() {
      return headers;
    }

    public List<String> strictCookies() {
      return Collections.emptyList();
    }

    public HttpVersion protocolVersion() {
      return HttpVersion.HTTP_1_1;
    }

    public HttpRequest removeHeader(String name) {
      headers.remove(name);
      return this;
    }

    public HttpResponse createResponse(RestStatus status, BytesReference content) {
      throw new UnsupportedOperationException();
    }
  }

  static class Channel implements HttpChannel {
    final HttpExchange exchange;

    Channel(HttpExchange exchange) {
      this.exchange = exchange;
    }

    public void sendResponse(HttpResponse response, ActionListener<Void> listener) {
      throw new UnsupportedOperationException();
    }

    public InetSocketAddress getLocalAddress() {
      return exchange.getLocalAddress();
    }

    public InetSocketAddress getRemoteAddress() {
      return exchange.getRemoteAddress();
    }

    public void close() {}

    public void addCloseListener(ActionListener<Void> listener) {}

    public boolean isOpen() {
      return true;
    }
  }
}
