import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.serialization.StringDeserializer;

/** `create BROKER TOPIC...` makes topics; `read BROKER TOPIC` prints a topic's values, one a line. */
public class Topics {
    public static void main(String[] words) throws Exception {
        Map<String, Object> broker = Map.of("bootstrap.servers", words[1]);
        List<String> topics = Arrays.asList(words).subList(2, words.length);
        if (words[0].equals("create")) {
            try (Admin admin = Admin.create(broker)) {
                admin.createTopics(topics.stream().map(name -> new NewTopic(name, 3, (short) 1)).toList()).all().get();
            }
            return;
        }
        try (var reader = new KafkaConsumer<>(broker, new StringDeserializer(), new StringDeserializer())) {
            var parts = reader.partitionsFor(topics.get(0)).stream()
                .map(part -> new org.apache.kafka.common.TopicPartition(part.topic(), part.partition())).toList();
            reader.assign(parts);
            reader.seekToBeginning(parts);
            var end = reader.endOffsets(parts);
            while (parts.stream().anyMatch(part -> reader.position(part) < end.get(part)))
                for (var one : reader.poll(Duration.ofMillis(200)))
                    if (one.value() != null) System.out.println(one.value());
        }
    }
}
